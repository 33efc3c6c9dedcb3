-- Writes a record, unless another run has a live one under its id. ARGV: id, run, time-to-live in ms, JSON, and whether it must be there.
local id, run, ttl, json, must_exist = ARGV[5], ARGV[6], tonumber(ARGV[7]), ARGV[8], ARGV[9] == '1'
local value = find(id)
local found = value and parse(value)
if value and not found then
  return { 'unreadable', value }
end
local is_live = found and found.kind == 'live'
if is_live and found.run ~= run then
  return { 'held', value }
end
if must_exist and not is_live then
  return { 'missing' }
end
local record = { kind = 'live', run = run, json = json }
if is_live then
  record.made, record.said = found.made, found.said
else
  -- Later than all others, also if the clock was put back.
  local last = tonumber(redis.call('HGET', state, 'made') or 0)
  local made = math.max(micros, last + 1)
  record.made, record.said = digits(made), '-'
end
local stored = format(record)
local is_same = stored == value
store(id, stored, now + ttl)
if is_same then
  return { 'done' }
end
local told = change('put', id, stored, ttl)
if not is_live then
  redis.call('HSET', state, 'made', record.made)
end
publish({ told }, not is_live)
return { 'done' }
