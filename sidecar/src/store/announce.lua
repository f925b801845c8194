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
    -- The oldest tenth becomes one purge of everything that is older: nothing purged comes back.
    local all, times = redis.call('HGETALL', marks), {}
    for i = 1, #all, 2 do
      local a, b = string.match(all[i + 1], '^(%d+):(%d+)$')
      if all[i] ~= '*' and all[i] ~= '@since' then table.insert(times, { all[i], math.max(tonumber(a or '0'), tonumber(b or '0')) }) end
    end
    table.sort(times, function(x, y) return x[2] < y[2] end)
    local everything, everything_soft = read('*')
    for i = 1, math.max(1, math.floor(#times / 10)) do
      redis.call('HDEL', marks, times[i][1])
      everything = math.max(everything, times[i][2])
    end
    redis.call('HSET', marks, '*', number(everything) .. ':' .. number(everything_soft))
  end
  redis.call('PEXPIRE', marks, ARGV[7])
end
if redis.call('TYPE', log).ok ~= 'stream' then redis.call('DEL', log) end
local id = redis.call('XADD', log, 'MAXLEN', '~', ARGV[6], '*', 'purge', ARGV[4])
redis.call('PEXPIRE', log, ARGV[8])
redis.call('PUBLISH', ARGV[9], ARGV[10])
return id
