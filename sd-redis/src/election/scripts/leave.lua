-- KEYS: ..., record of the last term. ARGV: ..., that record as it was found, and with its end; both may be empty.
if redis.call('HGET', owners, id) == owner then
  remove(id)
end
if ARGV[5] ~= '' and redis.call('GET', KEYS[6]) == ARGV[4] then
  redis.call('SET', KEYS[6], ARGV[5])
end
tell()
return { 'ok' }
