-- What all scripts of a service begin with. KEYS: its records, when they end, and its state. ARGV: the channel of its changes, the
-- channel of the list of services, its name there, and the name of a new history.
local records, ends, state = KEYS[1], KEYS[2], KEYS[3]
local channel, list_channel, service, new_history = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
-- A state that is not written any more goes. Readers that find none, or another one, read everything.
local STATE_KEPT_MS = 604800000

local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(micros / 1000)

-- Lua would write large numbers with an exponent.
local function digits(number)
  return string.format('%.0f', number)
end

-- What a stored value is made of; nothing for one that is none of ours.
local function parse(value)
  local kind, run, made, said, at = string.match(value, '^(%l+) (%x+) (%d+) ([%l-]+) ()')
  if kind == 'live' or kind == 'gone' then
    return { kind = kind, run = run, made = made, said = said, json = string.sub(value, at) }
  end
end

local function format(record)
  return table.concat({ record.kind, record.run, record.made, record.said, record.json }, ' ')
end

-- The stored value of a record, if it has not ended. One without an end was written by another program.
local function find(id)
  local value = redis.call('HGET', records, id)
  local ends_at = redis.call('ZSCORE', ends, id)
  -- Its type matters before anything is written.
  redis.call('HGET', state, 'version')
  if value and (not ends_at or tonumber(ends_at) > now) then
    return value
  end
end

-- Keeps a value, and counts it.
local function store(id, value, ends_at)
  redis.call('HSET', records, id, value)
  redis.call('ZADD', ends, digits(ends_at), id)
end

-- The next version, and what is told of it. A value that is put ends in so many ms.
local function change(op, id, value, ends_in)
  if redis.call('HSETNX', state, 'history', new_history) == 1 then
    redis.call('HDEL', state, 'version')
  end
  local version = redis.call('HINCRBY', state, 'version', 1)
  redis.call('PEXPIRE', state, STATE_KEPT_MS)
  local history = redis.call('HGET', state, 'history')
  return table.concat({ op, history, digits(version), digits(ends_in or 0), id }, ' ') .. '\n' .. (value or '')
end

-- Tells readers, last of all: who may not publish has written nevertheless, and readers ask now and then.
local function publish(told, is_listed)
  for _, message in ipairs(told) do
    redis.pcall('PUBLISH', channel, message)
  end
  if is_listed then
    redis.pcall('PUBLISH', list_channel, service)
  end
end
