-- Look up, or give the lease. One round trip, atomic.
-- KEYS[1] base of the key's names; ARGV: presented selectors (JSON), now, lease in ms (0: none wanted), its holder.
-- Returns status, fence, lease left, then the entry's hash fields flat.
local base, now, lease_ms = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local presented = cjson.decode(ARGV[1])

local names, candidates = { [':override'] = true, [':unkeyed'] = true }, {}
local index = redis.pcall('HGETALL', base .. ':i')
if index.err then index = {} end
for i = 1, #index, 2 do
  local read, record = pcall(cjson.decode, index[i + 1])
  if read and type(record) == 'table' and type(record.selectors) == 'table' and type(record.received) == 'number' then
    local matches = true
    for name, token in pairs(record.selectors) do
      names[name] = true
      if (presented[name] or '') ~= token then matches = false end
    end
    if matches then table.insert(candidates, { id = index[i], received = record.received }) end
  end
end

table.sort(candidates, function(a, b) return a.received > b.received end)
local found
for _, candidate in ipairs(candidates) do
  local fields = redis.pcall('HGETALL', base .. ':v:' .. candidate.id)
  if not fields.err and #fields > 0 then
    found = fields
    -- Which variant leaves when there are too many is decided by this (write.lua). A few tell enough, and spare writes; a
    -- full Redis refuses to count.
    local uses = redis.pcall('HGET', base .. ':n', candidate.id)
    if type(uses) ~= 'table' and (tonumber(uses or '0') or 0) < 8 then
      local counted = redis.pcall('HINCRBY', base .. ':n', candidate.id, 1)
      if type(counted) == 'number' then
        redis.call('PEXPIRE', base .. ':n', math.max(1, redis.call('PTTL', base .. ':i')))
      end
    end
    break
  end
end

local function answer(status, fence, left)
  local reply = { status, fence, left }
  for i = 1, found and #found or 0 do reply[i + 3] = found[i] end
  return reply
end

if found then
  local fresh_until = 0
  for i = 1, #found, 2 do
    if found[i] == 'fresh_until_ms' then fresh_until = tonumber(found[i + 1]) or 0 end
  end
  if lease_ms == 0 or now < fresh_until then return answer(200, '', 0) end
elseif lease_ms > 0 and redis.call('EXISTS', base .. ':u') == 1 then
  return answer(204, 'uncacheable', 0)
end
if lease_ms == 0 then return answer(204, '', 0) end
-- Writes nothing, and is refused when Redis is full: then there are no leases, but what is stored is found.
local full = redis.pcall('SETRANGE', base .. ':o', 0, '')
if type(full) == 'table' and full.err and string.find(full.err, 'OOM') then return { 204, '', 0 } end

-- Requests for different variants have different leases, as far as the selecting fields are known.
local sorted = {}
for name in pairs(names) do table.insert(sorted, name) end
table.sort(sorted)
local text = ''
for _, name in ipairs(sorted) do
  local token = presented[name] or ''
  text = text .. #name .. ':' .. name .. #token .. ':' .. token
end
local lease = string.sub(redis.sha1hex(text), 1, 16)
local clock = redis.call('TIME')
local at = clock[1] * 1000 + math.floor(clock[2] / 1000)
if redis.call('TYPE', base .. ':l').ok ~= 'hash' then redis.call('DEL', base .. ':l') end
local held = redis.call('HGET', base .. ':l', lease)
local left = held and (tonumber(string.match(held, ':(%d+)$')) or 0) - at or 0
if left > 0 then return answer(202, '', left) end
local fence = lease .. ARGV[4]
redis.call('HSET', base .. ':l', lease, fence .. ':' .. string.format('%.0f', at + lease_ms))
redis.call('PEXPIRE', base .. ':l', math.max(lease_ms, redis.call('PTTL', base .. ':l')))
return answer(201, fence, 0)
