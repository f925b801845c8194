-- Read the marks, and keep them whole. KEYS[1] marks, KEYS[2] log, KEYS[3] a name that is never used; ARGV: now, the marks'
-- and the log's life in ms, then mark, hard time, soft time of each mark that the caller remembers: they are added where
-- the marks were lost. Returns whether they had been, then all of them flat.
local marks, log, now = KEYS[1], KEYS[2], ARGV[1]
local number = function(n) return string.format('%.0f', n) end
-- A script that begins with a DEL may write although Redis is full: what is purged has to be remembered.
redis.call('DEL', KEYS[3])
if redis.call('TYPE', marks).ok ~= 'hash' then redis.call('DEL', marks) end

local lost = redis.call('HEXISTS', marks, '@since') == 0
if lost then
  for i = 4, #ARGV, 3 do
    local hard, soft = string.match(redis.call('HGET', marks, ARGV[i]) or '', '^(%d+):(%d+)$')
    hard = math.max(tonumber(hard or '0'), tonumber(ARGV[i + 1]))
    soft = math.max(tonumber(soft or '0'), tonumber(ARGV[i + 2]))
    redis.call('HSET', marks, ARGV[i], number(hard) .. ':' .. number(soft))
  end
  redis.call('HSET', marks, '@since', now)
end
redis.call('PEXPIRE', marks, ARGV[2])
redis.call('PEXPIRE', log, ARGV[3])
local reply = redis.call('HGETALL', marks)
table.insert(reply, 1, lost and 1 or 0)
return reply
