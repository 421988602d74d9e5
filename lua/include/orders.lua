--- @include events
--- @include coupons

-- The order's fields when it exists and belongs to `user`, else nil. A tombstone is no order.
local function order_of(order_key, user)
  local flat = redis.call('HGETALL', order_key)
  local order = {}
  for index = 1, #flat, 2 do
    order[flat[index]] = flat[index + 1]
  end
  if order.user ~= user or order.status == 'void' then
    return nil
  end
  return order
end

-- Fail an order that awaits payment: its coupon is free again, the user may order anew. The stock in other
-- partitions is given back by the caller. `keyed` is the idempotency key's hash, its fingerprint and the result, where
-- there is a key. Returns the event's place.
local function fail_order(meta, events, user_key, coupons, order_key, epoch, seq, request, order_id, order, failure,
  now, keyed)
  local coupon = order.coupon ~= '' and unpack_coupon(redis.call('HGET', coupons, order.coupon))
  local place = append(events, meta, epoch, seq, request, 'order.failed', now,
    'order', order_id, 'user', order.user, 'failure', failure, 'coupon', order.coupon,
    'key', keyed and keyed.key or '', 'fingerprint', keyed and keyed.fingerprint or '',
    'result', keyed and keyed.result or '')
  redis.call('HSET', order_key, 'status', 'failed', 'failure', failure, 'seq', place)
  redis.call('HDEL', user_key, 'open_order', 'open_pay_before')
  redis.call('HSET', user_key, 'seq', place)
  if coupon then
    set_coupon(coupons, order.coupon, coupon, 'free', '', '', place)
  end
  return place
end
