-- Drop the variants of a key that were requested up to a time, or, softly, end their freshness then; and remember that
-- time. KEYS[1] base; ARGV: time, memory in ms, wake channel, wake message, '1' for softly. What was requested later is
-- the news itself: it may have been faster.
local base, time, soft = KEYS[1], tonumber(ARGV[1]), ARGV[5] == '1'
-- A script that begins with a DEL may write although Redis is full: what was invalidated has to be remembered.
redis.call('DEL', base .. ':o')
local index = redis.pcall('HKEYS', base .. ':i')
if index.err then
  redis.call('DEL', base .. ':i')
else
  for _, id in ipairs(index) do
    local variant = base .. ':v:' .. id
    local numbers = redis.pcall('HMGET', variant, 'request_time_ms', 'fresh_until_ms', 'serve_stale_until_ms', 'stale_from_ms')
    local whole = not numbers.err and numbers[1]
    local later = whole and (tonumber(numbers[1]) or 0) > time
    if whole and not later and soft then
      local fresh, stale = tonumber(numbers[2]) or 0, tonumber(numbers[3]) or 0
      local number = function(n) return string.format('%.0f', n) end
      redis.call('HSET', variant, 'stale_from_ms', number(math.min(time, tonumber(numbers[4] or '') or time)))
      if fresh > time then
        redis.call('HSET', variant, 'fresh_until_ms', number(time), 'serve_stale_until_ms', number(time + stale - fresh))
      end
    elseif not later then
      redis.call('DEL', variant)
      redis.call('HDEL', base .. ':i', id)
    end
  end
end
redis.call('DEL', base .. ':u')
redis.call('SET', base .. ':x', ARGV[1], 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
