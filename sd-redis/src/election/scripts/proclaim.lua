-- ARGV: ..., domain, token, value.
local why = loss(ARGV[4], ARGV[5])
if not why then
  redis.call('HSET', values, id, ARGV[6])
end
local is_first = first() == id
tell(not why and is_first)
return { why or 'ok' }
