-- Look up, or give the lease. One round trip, atomic.
-- KEYS[1] base of the key's names; ARGV: presented selectors (JSON), now, lease in ms (0: none wanted), random digits.
-- Returns status, fence, lease left, then the entry's hash fields flat.
local base, now, lease_ms = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local presented = cjson.decode(ARGV[1])

local names, candidates = { [':override'] = true }, {}
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
local fence = lease .. ARGV[4]
if redis.call('SET', base .. ':l:' .. lease, fence, 'NX', 'PX', lease_ms) then return answer(201, fence, 0) end
return answer(202, '', math.max(redis.call('PTTL', base .. ':l:' .. lease), 0))
