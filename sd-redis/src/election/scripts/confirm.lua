-- ARGV: ..., domain, token, time-to-live.
local why = loss(ARGV[4], ARGV[5])
if not why then
  redis.call('ZADD', leases, 'XX', digits(now + ARGV[6]), id)
end
tell()
if why then
  return { why }
end
return { first() == id and 'first' or 'behind' }
