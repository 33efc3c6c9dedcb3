-- KEYS: ..., record of the last term. ARGV: ..., domain, token, that record as it was found, that of the term that begins.
local why = loss(ARGV[4], ARGV[5])
tell()
if why or first() ~= id or (redis.call('GET', KEYS[6]) or '') ~= ARGV[6] then
  return { 'changed' }
end
redis.call('SET', KEYS[6], ARGV[7])
return { 'ok' }
