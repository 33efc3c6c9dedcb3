-- Writes, removes or sweeps heartbeats. KEYS: the hash of a service. ARGV: its channel, after how many seconds without one a process is
-- gone, what is done, and then for 'put' and 'renew' the id, the run, and the value before and after the time; for 'end' the id and the
-- run; for 'sweep' ids.
local hash, channel, lives, done = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local now = tonumber(redis.call('TIME')[1])

-- What lives under an id, if it can be read.
local function find(id)
  local value = redis.call('HGET', hash, id)
  local is_read, found = pcall(cjson.decode, value or '')
  local at = is_read and type(found) == 'table' and tonumber(found.lastUpdate)
  if at and now - at <= lives then
    return value, found.incarnation
  end
  -- What cannot be read is left to the program that wrote it.
  return nil, nil, not at and value
end

if done == 'sweep' then
  local swept = 0
  for at = 4, #ARGV do
    local value, _, odd = find(ARGV[at])
    if not value and not odd then
      swept = swept + redis.call('HDEL', hash, ARGV[at])
    end
  end
  return { 'done', swept }
end

local id, run = ARGV[4], ARGV[5]
local value, holder, odd = find(id)
if odd or value and holder ~= run then
  return { 'held', value or odd }
end
if not value and done ~= 'put' then
  return { 'missing' }
end
if done == 'end' then
  redis.call('HDEL', hash, id)
else
  redis.call('HSET', hash, id, ARGV[6] .. string.format('%.0f', now) .. ARGV[7])
end
if done == 'end' or not value then
  redis.pcall('PUBLISH', channel, id)
end
return { 'done' }
