-- Drop all variants of a key and remember when. KEYS[1] base; ARGV: time, memory in ms, wake channel, wake message.
local base = KEYS[1]
local index = redis.pcall('HKEYS', base .. ':i')
if not index.err then
  for _, id in ipairs(index) do redis.call('DEL', base .. ':v:' .. id) end
end
redis.call('DEL', base .. ':i', base .. ':u')
redis.call('SET', base .. ':x', ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
