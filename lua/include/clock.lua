--- @include integers

-- Milliseconds since 1970: the given time, else this server's own, so that one clock decides for a partition.
local function clock_ms(now_ms)
  if now_ms ~= '' then
    return whole(now_ms, 0)
  end
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
