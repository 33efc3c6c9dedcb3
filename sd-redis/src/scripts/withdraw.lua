-- Marks a record of this run as withdrawn, so that readers who miss the message still learn it, and so that no earlier write of its
-- process that comes later brings it back. ARGV: id, run, the number of this write among those of its process, which another process has
-- none of, and for how long the mark stays, in ms.
local id, run, write, kept = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
local is_own = write ~= ''
local value = find(id)
local found = value and parse(value)
if value and not found then
  return { 'unreadable', value }
end
if is_own and is_late(found, run, write) then
  return { 'late', found.write }
end
if not found or found.kind == 'none' then
  if is_own then
    -- What was to write it may still be on its way.
    local mark = format({ kind = 'none', run = run, write = write, made = '0', said = '-', json = '' })
    store(id, mark, now + kept)
    publish({ change('put', id, mark, kept) }, false)
  end
  return { 'missing' }
end
if found.run ~= run then
  return { 'held', value }
end
if is_own then
  found.write = write
end
if found.kind == 'gone' then
  if is_own then
    -- Its mark began earlier, and what is still on its way comes as late as after any withdrawal.
    store(id, format(found), now + kept)
  end
  return { 'missing' }
end
found.kind, found.said = 'gone', '-'
local stored = format(found)
store(id, stored, now + kept)
publish({ change('put', id, stored, kept) }, true)
return { 'done' }
