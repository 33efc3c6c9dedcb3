-- What this server says of itself that matters to elections.
local said = redis.pcall('INFO', 'persistence', 'memory', 'replication')
if said.err then
  return { 'unknown', said.err }
end
return { 'known', said }
