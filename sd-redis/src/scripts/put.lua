-- Writes a record, unless another run has a live one under its id. ARGV: id, run, the number of this write among those of its process,
-- time-to-live in ms, JSON, and what must be there: 'any', a 'live' record of the run, or the 'same' as is written.
local id, run, write, ttl, json, must_be = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8]), ARGV[9], ARGV[10]
local value = find(id)
local found = value and parse(value)
if value and not found then
  return { 'unreadable', value }
end
local is_live = found and found.kind == 'live'
if is_live and found.run ~= run then
  return { 'held', value }
end
if is_late(found, run, write) then
  return { 'late', found.write }
end
if must_be ~= 'any' and not is_live or must_be == 'same' and found.json ~= json then
  return { 'missing' }
end
local record = { kind = 'live', run = run, write = write, json = json }
if is_live then
  record.made, record.said = found.made, found.said
else
  -- Later than all others, also if the clock was put back.
  local last = tonumber(redis.call('HGET', state, 'made') or 0)
  if not last or last < 0 or last >= 9e15 then
    last = 0
  end
  record.made, record.said = digits(math.max(micros, last + 1)), '-'
end
local stored = format(record)
store(id, stored, now + ttl)
if is_live and found.json == json then
  return { 'done' }
end
local told = change('put', id, stored, ttl)
if not is_live then
  redis.call('HSET', state, 'made', record.made)
end
publish({ told }, not is_live)
return { 'done' }
