-- The record of an election's last term; nothing if there is none.
return { redis.call('GET', KEYS[1]) or '' }
