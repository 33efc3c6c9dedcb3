-- ARGV: ..., name of a new history, time-to-live, value.
local domain = redis.call('HGET', history, 'domain')
if not domain then
  -- What is left without its history is of no election any more.
  domain = ARGV[4]
  all_are_gone = redis.call('DEL', order, leases, owners, values) > 0
  redis.call('HSET', history, 'domain', domain)
end
local held = redis.call('HGET', owners, id)
local token = redis.call('ZSCORE', order, id)
if held and token and held ~= owner then
  tell()
  return { 'conflict' }
end
if not held or not token then
  local last = tonumber(redis.call('HGET', history, 'last') or 0) or 0
  local before = tonumber(redis.call('ZREVRANGE', order, 0, 0, 'WITHSCORES')[2] or 0)
  -- Greater than that of each candidate before it. The time makes it greater than those that this server has never heard of, too.
  local number = math.max(last + 1, before + 1, now)
  -- Above that Lua does not count exactly. What is no number is not below it either.
  if not (number < 9007199254740992) then
    tell()
    return { 'exhausted' }
  end
  token = digits(number)
  redis.call('HSET', history, 'last', token)
  redis.call('ZADD', order, token, id)
  redis.call('HSET', owners, id, owner)
  redis.call('HSET', values, id, ARGV[6])
end
redis.call('ZADD', leases, digits(now + ARGV[5]), id)
tell()
return { 'ok', domain, digits(tonumber(token)) }
