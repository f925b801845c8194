-- Give a lease back without an entry. KEYS[1] base; ARGV: fence or holder, mark in ms (0: none), wake channel, wake message.
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

if end_lease(KEYS[1], ARGV[1]) then
  if tonumber(ARGV[2]) > 0 then redis.call('SET', KEYS[1] .. ':u', '1', 'PX', ARGV[2]) end
  redis.pcall('PUBLISH', ARGV[3], ARGV[4])
end
return 1
