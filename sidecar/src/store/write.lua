-- Store an entry under its fence. One round trip, atomic.
-- KEYS[1] base; ARGV: fence or '', request time, variant id, index record, ttl in ms, most variants, wake channel,
-- wake message, then the hash fields flat. Returns 1 stored, 0 refused.
-- Ends the lease that `fence` holds, or whose holder it names; says whether there was one that had not lapsed.
local function end_lease(base, fence)
  if redis.call('TYPE', base .. ':l').ok ~= 'hash' then return false end
  local clock = redis.call('TIME')
  local at = clock[1] * 1000 + math.floor(clock[2] / 1000)
  local leases = redis.call('HGETALL', base .. ':l')
  for i = 1, #leases, 2 do
    local held, ends = string.match(leases[i + 1], '^(%x+):(%d+)$')
    if held and tonumber(ends) > at and string.sub(held, -#fence) == fence then
      redis.call('HDEL', base .. ':l', leases[i])
      return true
    end
  end
  return false
end

local base, fence, ttl = KEYS[1], ARGV[1], tonumber(ARGV[5])
-- Writes nothing, and is refused when Redis is full; behind a DEL or HDEL it would not be, and neither would the entry.
local full = redis.pcall('SETRANGE', base .. ':o', 0, '')
if type(full) == 'table' and full.err then
  if fence ~= '' then end_lease(base, fence) end
  redis.pcall('PUBLISH', ARGV[7], ARGV[8])
  return redis.error_reply(full.err)
end
local holds = fence == '' or end_lease(base, fence)
local invalidated = tonumber(redis.call('GET', base .. ':x') or '')
if not holds or (invalidated and tonumber(ARGV[2]) <= invalidated) then
  redis.pcall('PUBLISH', ARGV[7], ARGV[8])
  return 0
end

local index, variant = base .. ':i', base .. ':v:' .. ARGV[3]
-- What is there was asked for later: a fetch without a lease may end after one that began after it.
-- What comes from the future is not newer than anything: the rule of contract/src/purge/requested.rs.
local known = redis.pcall('HGET', variant, 'request_time_ms')
known = type(known) == 'string' and tonumber(known) or 0
local clock = redis.call('TIME')
if known > tonumber(ARGV[2]) and known <= clock[1] * 1000 + math.floor(clock[2] / 1000) + 1000 then
  redis.pcall('PUBLISH', ARGV[7], ARGV[8])
  return 0
end
if redis.call('TYPE', index).ok ~= 'hash' then redis.call('DEL', index) end
redis.call('DEL', variant, base .. ':u')
-- Whoever holds a lease now waits for what is here already.
if fence == '' then redis.call('DEL', base .. ':l') end
local fields = {}
for i = 9, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('HSET', variant, unpack(fields))
-- What is written again is wanted.
local counts = base .. ':n'
if redis.call('TYPE', counts).ok ~= 'hash' then redis.call('DEL', counts) end
if redis.call('HEXISTS', index, ARGV[3]) == 1 then redis.call('HINCRBY', counts, ARGV[3], 1) end
redis.call('PEXPIRE', variant, ttl)
redis.call('HSET', index, ARGV[3], ARGV[4])
redis.call('PEXPIRE', index, math.max(ttl, redis.call('PTTL', index)))

redis.call('PEXPIRE', counts, math.max(1, redis.call('PTTL', index)))

-- Which of the other variants leaves first: the rule of contract/src/crowding.rs. What is not there any more; then, of
-- those that have answered one request at most, the oldest of the newer half; else the least used, of equals the oldest.
local function first_to_go()
  local all, unproven, least = redis.call('HGETALL', index), {}, nil
  for i = 1, #all, 2 do
    local id = all[i]
    if id ~= ARGV[3] then
      if redis.call('EXISTS', base .. ':v:' .. id) == 0 then return id end
      local read, record = pcall(cjson.decode, all[i + 1])
      local received = read and type(record) == 'table' and tonumber(record.received) or 0
      local one = { id = id, received = received, uses = tonumber(redis.call('HGET', counts, id) or '0') or 0 }
      if one.uses <= 1 then table.insert(unproven, one) end
      if not least or one.uses < least.uses or (one.uses == least.uses and received < least.received) then least = one end
    end
  end
  table.sort(unproven, function(a, b) return a.received < b.received end)
  local goes = unproven[math.floor(#unproven / 2) + 1] or least
  return goes and goes.id
end

while redis.call('HLEN', index) > tonumber(ARGV[6]) do
  local goes = first_to_go()
  if not goes then break end
  redis.call('HDEL', index, goes)
  redis.call('HDEL', counts, goes)
  redis.call('DEL', base .. ':v:' .. goes)
end
redis.pcall('PUBLISH', ARGV[7], ARGV[8])
return 1
