--- @include integers

-- What PostgreSQL alone has began no later than `before` of the partition's cold hash; `times` counts the calls that
-- have let something go.

-- Whether what began at `began_ms` may be in PostgreSQL alone: then that count, else nil. Whoever asked PostgreSQL after
-- being told this very count knows what it has.
local function may_be_cold(cold, began_ms, asked)
  local found = redis.call('HMGET', cold, 'before', 'times')
  if found[1] and began_ms <= tonumber(found[1]) and asked ~= found[2] then
    return found[2]
  end
  return nil
end

-- Whatever begins later stays: it is hot, or its id is young enough for a late original to be let in.
local function latest_to_leave(hot_from_ms, age_max_ms, now)
  return math.min(hot_from_ms, now - age_max_ms - 1)
end

-- Whether PostgreSQL has the change at a place, `<epoch>-<seq>`: an epoch's events are durable before the next begins.
local function is_durable(place, durable)
  local seq = place and string.match(place, '^%d+%-(%d+)$')
  return seq ~= nil and tonumber(seq) <= durable
end

-- Whether a coupon may leave: used, or never to be taken again because it has expired.
local function coupon_leaves(coupon, latest, durable)
  local over_ms = coupon.state == 'used' and coupon.used_at or coupon.state == 'free' and coupon.valid_until
  return over_ms and tonumber(over_ms) <= latest and tonumber(coupon.issued_at) <= latest
    and is_durable(coupon.seq, durable)
end

-- Note that something leaves that began at `latest` or earlier.
local function note_cold(cold, latest)
  local before = redis.call('HGET', cold, 'before')
  redis.call('HSET', cold, 'before', int(math.max(latest, tonumber(before or '0'))))
  redis.call('HINCRBY', cold, 'times', 1)
end
