-- Remember a purge and tell every sidecar. KEYS[1] marks, KEYS[2] log, KEYS[3] a name that is never used; ARGV: mark or ''
-- for none, '1' for soft, time, the purge as JSON, most marks, log length, marks' and log's life in ms, wake channel, wake
-- message.
local marks, log, mark, soft = KEYS[1], KEYS[2], ARGV[1], ARGV[2] == '1'
-- A clock that is ahead must not make untrue what is yet to come.
local clock = redis.call('TIME')
local time = math.min(tonumber(ARGV[3]), clock[1] * 1000 + math.floor(clock[2] / 1000) + 1000)
local number = function(n) return string.format('%.0f', n) end
-- A script that begins with a DEL may write although Redis is full: what was purged has to be remembered, and is bounded.
redis.call('DEL', KEYS[3])

local function read(name)
  local hard, softly = string.match(redis.call('HGET', marks, name) or '', '^(%d+):(%d+)$')
  return tonumber(hard or '0'), tonumber(softly or '0')
end

if mark ~= '' then
  if redis.call('TYPE', marks).ok ~= 'hash' then redis.call('DEL', marks) end
  local hard, softly = read(mark)
  if soft then softly = math.max(softly, time) else hard = math.max(hard, time) end
  redis.call('HSET', marks, mark, number(hard) .. ':' .. number(softly))
  if redis.call('HLEN', marks) > tonumber(ARGV[5]) then
    -- About the oldest quarter becomes one purge of everything that is older: nothing purged comes back. Where that ends is
    -- judged by a sample; to sort them all would hold everybody up.
    local all, sample = redis.call('HGETALL', marks), {}
    local function latest(i)
      local a, b = string.match(all[i + 1], '^(%d+):(%d+)$')
      return math.max(tonumber(a or '0'), tonumber(b or '0'))
    end
    local function counts(i) return all[i] ~= '*' and string.sub(all[i], 1, 1) ~= '@' end
    for i = 1, #all, 2 * math.max(1, math.floor(#all / 512)) do
      if counts(i) then table.insert(sample, latest(i)) end
    end
    table.sort(sample)
    local cut = sample[math.floor(#sample / 4) + 1] or time
    for i = 1, #all, 2 do
      if counts(i) and latest(i) <= cut then redis.call('HDEL', marks, all[i]) end
    end
    local everything, everything_soft = read('*')
    redis.call('HSET', marks, '*', number(math.max(everything, cut)) .. ':' .. number(everything_soft))
  end
  redis.call('PEXPIRE', marks, ARGV[7])
end
if redis.call('TYPE', log).ok ~= 'stream' then redis.call('DEL', log) end
local id = redis.call('XADD', log, 'MAXLEN', '~', ARGV[6], '*', 'purge', ARGV[4])
redis.call('PEXPIRE', log, ARGV[8])
-- Who may not publish is heard all the same: every sidecar reads the log now and then.
redis.pcall('PUBLISH', ARGV[9], ARGV[10])
return id
