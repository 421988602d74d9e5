--- @include clock
--- @include events
--- @include pricing
--- @include idempotency

-- What place_order and checkout_order decide alike: may this user order now, and at what price? Returns a refusal,
-- or nil and the price with the coupon that gives the discount.
local function price_order(wallet, coupons, order_key, coupon_id, subtotal, limits, created_ms, now,
  key_record, fingerprint, claim)
  local known = redis.call('HMGET', order_key, 'status', 'seq')
  if known[1] then
    return {'exists', known[2], known[1]}
  end
  local verdict = key_verdict(key_record, fingerprint, claim)
  if verdict then
    return verdict
  end
  if now - created_ms > limits.age_max_ms then
    return {'too_old'}
  end
  local open = redis.call('HMGET', wallet, 'open_order', 'open_pay_before', 'balance')
  if open[1] then
    return {'order_in_progress', open[1], open[2]}
  end
  local discount, reason, coupon, rule = discount_of(coupons, coupon_id, subtotal, now, limits.discount_min,
    limits.discount_max)
  if not discount then
    return {'coupon_not_valid', reason}
  end
  local total = subtotal - discount
  if total > limits.payment_max then
    return {'payment_limit', int(total)}
  end
  return nil, {discount = discount, total = total, coupon = coupon, rule = rule, balance = tonumber(open[3] or '0')}
end
