-- Drop the variants of a key that were requested up to a time, or, softly, end their freshness then; and remember that
-- time. KEYS[1] base; ARGV: time, memory in ms, wake channel, wake message, '1' for softly. What was requested later is
-- the news itself: it may have been faster. The rules are those of contract/src/purge/requested.rs (what is reached) and of
-- EntryMeta::end_freshness in contract/src/entry.rs (softly).
local base, soft = KEYS[1], ARGV[5] == '1'
-- A clock that is ahead must not keep the key out for as long as it is; what it dated may be older all the same.
local clock = redis.call('TIME')
local latest = clock[1] * 1000 + math.floor(clock[2] / 1000) + 1000
local time = math.min(tonumber(ARGV[1]), latest)
local number = function(n) return string.format('%.0f', n) end
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
    local requested = whole and tonumber(numbers[1]) or 0
    local later = requested > time and requested <= latest
    if whole and not later and soft then
      local fresh, stale, since = tonumber(numbers[2]) or 0, tonumber(numbers[3]) or 0, tonumber(numbers[4] or '')
      if not since or time < since then
        redis.call('HSET', variant, 'stale_from_ms', number(time))
        if fresh > time then
          local ends = time + math.max(0, stale - fresh)
          redis.call('HSET', variant, 'fresh_until_ms', number(time), 'serve_stale_until_ms', number(ends))
        end
      end
    elseif not later then
      redis.call('DEL', variant)
      redis.call('HDEL', base .. ':i', id)
      redis.pcall('HDEL', base .. ':n', id)
    end
  end
end
redis.call('DEL', base .. ':u')
local known = redis.pcall('GET', base .. ':x')
known = type(known) == 'string' and tonumber(known) or 0
redis.call('SET', base .. ':x', number(math.max(time, known)), 'PX', ARGV[2])
redis.pcall('PUBLISH', ARGV[3], ARGV[4])
return 1
