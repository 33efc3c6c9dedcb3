-- Whether a service has a record that is in service, and in how many ms its last one ends.
local PAGE = 100
local from = '(' .. digits(now)
local at, is_alive = 0, 0
while is_alive == 0 do
  local ids = redis.call('ZRANGEBYSCORE', ends, from, '+inf', 'LIMIT', at, PAGE)
  if #ids == 0 then
    break
  end
  for _, value in ipairs(redis.call('HMGET', records, unpack(ids))) do
    if value and string.sub(value, 1, 5) == 'live ' then
      is_alive = 1
      break
    end
  end
  at = at + PAGE
end
local last = redis.call('ZREVRANGE', ends, 0, 0, 'WITHSCORES')
local rest = -1
if is_alive == 1 then
  rest = ends_in(last[2])
end
return { is_alive, digits(rest) }
