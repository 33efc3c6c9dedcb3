-- ARGV: ..., domain, token.
local why = loss(ARGV[4], ARGV[5])
tell()
if why then
  return { why }
end
local top = first()
if top == id then
  return { 'first' }
end
local before = redis.call('ZRANGE', order, '(' .. ARGV[5], '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)[1]
local ends = before and redis.call('ZSCORE', leases, before)
return { 'behind', ends and digits(ends - now) or '' }
