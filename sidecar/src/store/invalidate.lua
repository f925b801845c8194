-- Drop the variants of a key that were requested up to a time, and remember that time. KEYS[1] base; ARGV: time, memory
-- in ms, wake channel, wake message. What was requested later is the news itself: it may have been faster.
local base, time = KEYS[1], tonumber(ARGV[1])
local index = redis.pcall('HKEYS', base .. ':i')
if index.err then
  redis.call('DEL', base .. ':i')
else
  for _, id in ipairs(index) do
    local requested = redis.pcall('HGET', base .. ':v:' .. id, 'request_time_ms')
    local later = type(requested) == 'string' and (tonumber(requested) or 0) > time
    if not later then
      redis.call('DEL', base .. ':v:' .. id)
      redis.call('HDEL', base .. ':i', id)
    end
  end
end
redis.call('DEL', base .. ':u')
redis.call('SET', base .. ':x', ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
