-- Give a lease back without an entry. KEYS[1] base; ARGV: fence, mark in ms (0: none), wake channel, wake message.
local lease = KEYS[1] .. ':l:' .. string.sub(ARGV[1], 1, 16)
if redis.call('GET', lease) == ARGV[1] then
  redis.call('DEL', lease)
  if tonumber(ARGV[2]) > 0 then redis.call('SET', KEYS[1] .. ':u', '1', 'PX', ARGV[2]) end
  redis.call('PUBLISH', ARGV[3], ARGV[4])
end
return 1
