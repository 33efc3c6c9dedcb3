-- Marks a record of this run as withdrawn, so that readers who miss the message still learn it. ARGV: id, run, and for how long the mark
-- stays, in ms.
local id, run, kept = ARGV[5], ARGV[6], tonumber(ARGV[7])
local value = find(id)
local found = value and parse(value)
if not value then
  return { 'missing' }
end
if not found then
  return { 'unreadable', value }
end
if found.run ~= run then
  return { 'held', value }
end
if found.kind == 'gone' then
  return { 'missing' }
end
found.kind, found.said = 'gone', '-'
local stored = format(found)
store(id, stored, now + kept)
publish({ change('put', id, stored, kept) }, true)
return { 'done' }
