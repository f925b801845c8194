-- Say which Envoys follow at one sidecar, and find those that nobody has heard of. KEYS[1] envoys, KEYS[2] a name that is
-- never used; ARGV: after how many ms an Envoy is lost, then of each Envoy its id and '1' (follows and writes), '0'
-- (follows) or '-' (has left). Returns how many lost ones wrote, each is found once, and what time it is.
local envoys = KEYS[1]
redis.call('DEL', KEYS[2])
if redis.call('TYPE', envoys).ok ~= 'hash' then redis.call('DEL', envoys) end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for i = 2, #ARGV, 2 do
  if ARGV[i + 1] == '-' then
    redis.call('HDEL', envoys, ARGV[i])
  else
    redis.call('HSET', envoys, ARGV[i], string.format('%.0f', now) .. ':' .. ARGV[i + 1])
  end
end
local lost, all = 0, redis.call('HGETALL', envoys)
for i = 1, #all, 2 do
  local seen, writes = string.match(all[i + 1], '^(%d+):([01])$')
  if not seen or now - tonumber(seen) >= tonumber(ARGV[1]) then
    redis.call('HDEL', envoys, all[i])
    if writes == '1' then lost = lost + 1 end
  end
end
redis.call('PEXPIRE', envoys, 86400000)
return { lost, now }
