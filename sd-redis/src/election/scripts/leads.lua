-- Goes on only if a candidate leads. The last keys are order, leases and history; the last arguments are domain, id and token.
do
  local keys, args = #KEYS, #ARGV
  local order, leases, history = KEYS[keys - 2], KEYS[keys - 1], KEYS[keys]
  local domain, id, token = ARGV[args - 2], ARGV[args - 1], ARGV[args]
  local clock = redis.call('TIME')
  local now = clock[1] * 1000000 + clock[2]
  local function lives(candidate)
    local ends = redis.call('ZSCORE', leases, candidate)
    return ends and tonumber(ends) >= now
  end
  local at = redis.call('ZSCORE', order, id)
  local leads = at and tonumber(at) == tonumber(token) and lives(id)
    and redis.call('HGET', history, 'domain') == domain
  if leads then
    for _, candidate in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', '(' .. token)) do
      leads = leads and not lives(candidate)
    end
  end
  if not leads then
    return redis.error_reply('TERMOVER the term of ' .. id .. ' with the token ' .. token .. ' is over')
  end
end
