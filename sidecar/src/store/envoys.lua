-- Say which Envoys follow at one sidecar, and find those that are missing. KEYS[1] envoys, KEYS[2] a name that is never used;
-- ARGV: after how many ms an Envoy is missing, how often that is to be told and for how long, then of each Envoy its id, '1'
-- (follows) or '-' (has left), and how many ms ago. Returns how many are missing and were not told of lately, what time it is, and for how many ms one has been missing (0: none is).
local envoys, lapse, again, most = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
redis.call('DEL', KEYS[2])
if redis.call('TYPE', envoys).ok ~= 'hash' then redis.call('DEL', envoys) end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local number = function(n) return string.format('%.0f', n) end
for i = 4, #ARGV, 3 do
  if ARGV[i + 1] == '-' then
    redis.call('HDEL', envoys, ARGV[i])
  else
    redis.call('HSET', envoys, ARGV[i], number(now - tonumber(ARGV[i + 2])) .. ':' .. ARGV[i + 1])
  end
end
local missing, longest, all = 0, 0, redis.call('HGETALL', envoys)
for i = 1, #all, 2 do
  -- When it was seen, '1' (or '0' from a former version), and when it was last told that it is missing.
  local seen, told = string.match(all[i + 1], '^(%d+):[01]:?(%d*)$')
  local age = seen and now - tonumber(seen)
  if not age or age >= most then
    redis.call('HDEL', envoys, all[i])
  elseif age >= lapse then
    longest = math.max(longest, age)
    if now - (tonumber(told) or 0) >= again then
      redis.call('HSET', envoys, all[i], seen .. ':1:' .. number(now))
      missing = missing + 1
    end
  end
end
redis.call('PEXPIRE', envoys, 86400000)
return { missing, now, longest }
