-- What all scripts of a service begin with. KEYS: its records, when they end, and its state. ARGV: the channel of its changes, the
-- channel of the list of services, its name there, and the name of a new history.
local records, ends, state = KEYS[1], KEYS[2], KEYS[3]
local channel, list_channel, service, new_history = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
-- A state that is not written any more goes. Readers that find none, or another one, read everything.
local STATE_KEPT_MS = 604800000
-- The longest time-to-live.
local LONGEST_MS = 86400000
-- More than is ever counted, and little enough to be counted exactly.
local LARGEST = 1e15
-- More than is before the JSON of a stored value.
local LONGEST_HEAD = 128

local time = redis.call('TIME')
local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
local now = math.floor(micros / 1000)

-- Lua would write large numbers with an exponent.
local function digits(number)
  return string.format('%.0f', number)
end

-- In how many ms an end comes. Other programs may have written any number, also an infinite one.
local function ends_in(at)
  return math.min(math.max(0, tonumber(at) - now), LONGEST_MS)
end

-- What a stored value begins with, and where its JSON does; nothing for a value that is none of ours.
local function head(value)
  local kind, run, write, made, said, at =
    string.match(string.sub(value, 1, LONGEST_HEAD), '^(%l+) (%x+) (%d+) (%d+) ([%l-]+) ()')
  if (kind == 'live' or kind == 'gone' or kind == 'none') and tonumber(write) < LARGEST and #made <= 16 then
    return { kind = kind, run = run, write = write, made = made, said = said }, at
  end
end

-- What a stored value is made of; nothing for one that is none of ours.
local function parse(value)
  local found, at = head(value)
  if found then
    found.json = string.sub(value, at)
  end
  return found
end

local function format(record)
  return table.concat({ record.kind, record.run, record.write, record.made, record.said, record.json }, ' ')
end

-- The stored value of a record, if it has not ended. One without an end was written by another program.
local function stored_under(id)
  local value = redis.call('HGET', records, id)
  local ends_at = redis.call('ZSCORE', ends, id)
  if value and (not ends_at or tonumber(ends_at) > now) then
    return value
  end
end

-- The same, before anything is written: the type of the state matters then.
local function find(id)
  local value = stored_under(id)
  redis.call('HGET', state, 'version')
  return value
end

-- Whether this run has written a record again, or withdrawn it, after it sent this.
local function is_late(found, run, write)
  return found and found.run == run and tonumber(found.write) > tonumber(write)
end

-- Keeps a value until then.
local function store(id, value, ends_at)
  redis.call('HSET', records, id, value)
  redis.call('ZADD', ends, digits(ends_at), id)
end

-- The history, how many changes that has, and their sum. No history if there is none, or another program has made it something else.
local function position()
  local at = redis.call('HMGET', state, 'history', 'version', 'sum')
  local history, version, sum = at[1] or '', at[2] or '', at[3] or ''
  local is_ours = #history <= 32 and string.match(history, '^%x+$') and string.match(version, '^%d+$')
    and tonumber(version) < LARGEST and #sum <= 32 and string.match(sum, '^%x+$')
  if is_ours then
    return history, tonumber(version), sum
  end
  return '', 0, '0'
end

-- Counts a change, and returns what is told of it. The sum is of all changes so far: servers that have lost different ones never have
-- the same. A value that is put ends in so many ms.
local function change(op, id, value, ends_in_ms)
  local history, version, before = position()
  if history == '' then
    history = new_history
  end
  version = version + 1
  local sum = string.sub(redis.sha1hex(table.concat({ before, op, id, value or '' }, ' ')), 1, 16)
  redis.call('HSET', state, 'history', history, 'version', digits(version), 'sum', sum)
  redis.call('PEXPIRE', state, STATE_KEPT_MS)
  local words = { op, history, digits(version), before, sum, digits(ends_in_ms or 0), id }
  return table.concat(words, ' ') .. '\n' .. (value or '')
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
