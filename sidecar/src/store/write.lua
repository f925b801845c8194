-- Store an entry under its fence. One round trip, atomic.
-- KEYS[1] base; ARGV: fence or '', request time, variant id, index record, ttl in ms, most variants, wake channel,
-- wake message, then the hash fields flat. Returns 1 stored, 0 refused.
local base, fence, ttl = KEYS[1], ARGV[1], tonumber(ARGV[5])
local holds = true
if fence ~= '' then
  local lease = base .. ':l:' .. string.sub(fence, 1, 16)
  holds = redis.call('GET', lease) == fence
  if holds then redis.call('DEL', lease) end
end
local invalidated = tonumber(redis.call('GET', base .. ':x') or '')
if not holds or (invalidated and tonumber(ARGV[2]) <= invalidated) then
  redis.call('PUBLISH', ARGV[7], ARGV[8])
  return 0
end

local index, variant = base .. ':i', base .. ':v:' .. ARGV[3]
if redis.call('TYPE', index).ok ~= 'hash' then redis.call('DEL', index) end
redis.call('DEL', variant, base .. ':u')
local fields = {}
for i = 9, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('HSET', variant, unpack(fields))
redis.call('PEXPIRE', variant, ttl)
redis.call('HSET', index, ARGV[3], ARGV[4])
redis.call('PEXPIRE', index, math.max(ttl, redis.call('PTTL', index)))

while redis.call('HLEN', index) > tonumber(ARGV[6]) do
  local all, oldest, received = redis.call('HGETALL', index), nil, nil
  for i = 1, #all, 2 do
    local read, record = pcall(cjson.decode, all[i + 1])
    local at = read and type(record) == 'table' and tonumber(record.received) or 0
    if all[i] ~= ARGV[3] and (not received or at < received) then oldest, received = all[i], at end
  end
  if not oldest then break end
  redis.call('HDEL', index, oldest)
  redis.call('DEL', base .. ':v:' .. oldest)
end
redis.call('PUBLISH', ARGV[7], ARGV[8])
return 1
