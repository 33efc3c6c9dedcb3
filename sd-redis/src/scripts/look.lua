-- Where a service is: its history, version and sum, how many entries it has, in how many ms the next one ends, and what has ended and could not
-- be removed. Removes what has ended: the first that notices does it, for all. Who may only read gets an answer as well.
local MOST, TOLD_ONE_BY_ONE, STRAY_KEPT_MS = 500, 20, 60000

-- Whether we may write now. A change has to follow.
local function may_write()
  local answer = redis.pcall('HSETNX', state, 'history', new_history)
  return type(answer) == 'number'
end

local told, is_listed = {}, false
local ended = redis.call('ZRANGEBYSCORE', ends, '-inf', digits(now), 'LIMIT', 0, MOST)
local hidden = {}
if #ended > 0 then
  if may_write() then
    redis.call('ZREM', ends, unpack(ended))
    redis.call('HDEL', records, unpack(ended))
    is_listed = true
    if #ended > TOLD_ONE_BY_ONE then
      told[1] = change('all', '')
    else
      for _, id in ipairs(ended) do
        told[#told + 1] = change('end', id)
      end
    end
  else
    hidden = redis.call('ZRANGEBYSCORE', ends, '-inf', digits(now))
  end
end

-- Another program has written or removed something without its end, or the other way round.
local count = redis.call('HLEN', records)
if count ~= redis.call('ZCARD', ends) and may_write() then
  local ids = redis.call('HKEYS', records)
  local is_record = {}
  for _, id in ipairs(ids) do
    is_record[id] = true
    -- Its owner extends this, if it has one.
    redis.call('ZADD', ends, 'NX', digits(now + STRAY_KEPT_MS), id)
  end
  for _, id in ipairs(redis.call('ZRANGE', ends, 0, -1)) do
    if not is_record[id] then
      redis.call('ZREM', ends, id)
    end
  end
  told[#told + 1] = change('all', '')
  is_listed = true
end

-- Ends that no time-to-live reaches: the clock was put back, or another program wrote them.
local far = redis.call('ZRANGEBYSCORE', ends, '(' .. digits(now + LONGEST_MS), '+inf', 'LIMIT', 0, MOST)
for _, id in ipairs(far) do
  redis.pcall('ZADD', ends, 'XX', digits(now + LONGEST_MS), id)
end

publish(told, is_listed)
local next_end = -1
if #ended == MOST and #hidden == 0 then
  next_end = 0
else
  local first = redis.call('ZRANGEBYSCORE', ends, '(' .. digits(now), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if first[2] then
    next_end = ends_in(first[2])
  end
end
local history, version, sum = position()
return { history, digits(version), sum, count, digits(next_end), hidden }
