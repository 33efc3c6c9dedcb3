-- Sets what an operator says of a record. ARGV: id, run, and what is said, or a dash.
local id, run, said = ARGV[5], ARGV[6], ARGV[7]
local value = find(id)
local found = value and parse(value)
if not value then
  return { 'missing' }
end
if not found then
  return { 'unreadable', value }
end
if found.kind ~= 'live' then
  return { 'missing' }
end
if found.run ~= run then
  return { 'held', value }
end
if found.said == said then
  return { 'done' }
end
found.said = said
local stored = format(found)
redis.call('HSET', records, id, stored)
local ends_at = redis.call('ZSCORE', ends, id) or now
publish({ change('put', id, stored, ends_in(ends_at)) }, false)
return { 'done' }
