-- Extends records. ARGV: for each one its id, its run and its time-to-live in ms. Answers for each what an operator says of it, or why it
-- is not this run's any more.
-- A state lasts for as long as a record does, however long nothing changes. What another program has there is left alone.
if type(redis.pcall('HGET', state, 'version')) ~= 'table' then
  redis.call('PEXPIRE', state, STATE_KEPT_MS)
end
local answers = {}
for at = 5, #ARGV, 3 do
  local id, run, ttl = ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2])
  local value = stored_under(id)
  local found = value and head(value)
  local answer
  if not value or found and found.kind == 'none' then
    answer = 'missing'
  elseif not found then
    answer = 'unreadable'
  elseif found.run ~= run then
    answer = 'held'
  elseif found.kind == 'gone' then
    answer = 'gone'
  else
    redis.call('ZADD', ends, digits(now + ttl), id)
    answer = found.said
  end
  answers[#answers + 1] = answer
end
return answers
