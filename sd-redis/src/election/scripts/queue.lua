-- What all scripts of a candidate begin with: one election, and what has happened in it.
-- Times are this server's, in microseconds. Each number is below 2^53, so that Lua counts exactly.
local order, leases, owners, values, history = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local channel, id, owner = ARGV[1], ARGV[2], ARGV[3]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- Lua would write 2000000000000000 as 2e+15.
local function digits(number)
  return string.format('%.0f', number)
end

-- Who is the first, with its token.
local function first()
  local top = redis.call('ZRANGE', order, 0, 0, 'WITHSCORES')
  return top[1] or '-', digits(tonumber(top[2] or 0))
end

-- A key of another type is an error before anything is written.
redis.call('HLEN', owners)
redis.call('HLEN', values)
redis.call('HLEN', history)

local gone = {}
local all_are_gone = false

local function remove(candidate)
  redis.call('ZREM', order, candidate)
  redis.call('ZREM', leases, candidate)
  redis.call('HDEL', owners, candidate)
  redis.call('HDEL', values, candidate)
  gone[#gone + 1] = candidate
end

local first_before, token_before = first()

-- Takes away the candidates whose leases have ended, and one that is not all there and would lead.
for _, candidate in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', '(' .. digits(now))) do
  remove(candidate)
end
while true do
  local top = first()
  if top == '-' or redis.call('ZSCORE', leases, top) and redis.call('HEXISTS', owners, top) == 1 then
    break
  end
  remove(top)
end

-- Why the entry is gone, if it is.
local function loss(domain, token)
  if redis.call('HGET', history, 'domain') ~= domain then
    return 'history'
  end
  local at = redis.call('ZSCORE', order, id)
  local held = redis.call('HGET', owners, id)
  if not at or not held or not redis.call('ZSCORE', leases, id) then
    return 'missing'
  end
  if held ~= owner or tonumber(at) ~= tonumber(token) then
    return 'replaced'
  end
end

-- Tells the candidates and observers what has changed. It comes last, and a message that is not allowed undoes nothing.
local function tell(is_news)
  local top, token = first()
  if is_news or all_are_gone or #gone > 0 or top ~= first_before or token ~= token_before then
    local which = (all_are_gone or #gone > 32) and '*' or table.concat(gone, ' ')
    redis.pcall('PUBLISH', channel, table.concat({ top, token, which }, ' '))
  end
end
