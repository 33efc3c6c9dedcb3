-- Who leads one election, for those who only read. KEYS: order, leases, owners, values, history.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local from = 0
while true do
  local some = redis.call('ZRANGE', KEYS[1], from, from + 31, 'WITHSCORES')
  for at = 1, #some, 2 do
    local id, token = some[at], some[at + 1]
    local ends = redis.call('ZSCORE', KEYS[2], id)
    local value = redis.call('HGET', KEYS[4], id)
    if ends and tonumber(ends) >= now and value and redis.call('HEXISTS', KEYS[3], id) == 1 then
      local domain = redis.call('HGET', KEYS[5], 'domain') or ''
      -- With all digits, however the server tells a score.
      return { 'leader', id, string.format('%.0f', token), domain, value, string.format('%.0f', ends - now) }
    end
  end
  if #some < 64 then
    return { 'none' }
  end
  from = from + 32
end
