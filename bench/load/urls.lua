-- usage: wrk -s urls.lua URL -- COUNT SEED
-- Every request asks for URL?id=… : COUNT ids in turn; with COUNT 0 never the same twice, SEED being the ids' first part.
local ready, count, seed, at = {}, 0, "", 0

function init(args)
  count, seed = tonumber(args[1]), args[2]
  for n = 1, count do
    ready[n] = wrk.format("GET", wrk.path .. "?id=" .. n)
  end
end

function request()
  if count > 0 then
    at = at % count + 1
    return ready[at]
  end
  at = at + 1
  return wrk.format("GET", wrk.path .. "?id=" .. seed .. at)
end
