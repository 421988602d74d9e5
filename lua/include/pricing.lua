--- @include integers
--- @include coupons

-- floor(subtotal * percent / 100) without leaving the exact integers.
local function percent_of(subtotal, percent)
  local hundreds = math.floor(subtotal / 100)
  return hundreds * percent + math.floor((subtotal - hundreds * 100) * percent / 100)
end

-- The discount that the coupon `id` gives on `subtotal` now, or nil and the reason why it may not be used.
-- An empty id gives 0. Also returns the coupon and its rule as the event records it.
local function discount_of(coupons, id, subtotal, now, discount_min, discount_max)
  if id == '' then
    return 0, nil, nil, ''
  end
  local packed = redis.call('HGET', coupons, id)
  if not packed or string.find(id, ':', 1, true) then
    return nil, 'unknown'
  end
  local coupon = unpack_coupon(packed)
  if coupon.state ~= 'free' then
    return nil, coupon.state
  end
  if now >= tonumber(coupon.valid_until) then
    return nil, 'expired'
  end
  if now < tonumber(coupon.valid_from) then
    return nil, 'not_started'
  end
  if coupon.minimum_order ~= '' and subtotal < tonumber(coupon.minimum_order) then
    return nil, 'minimum_order'
  end
  local value = tonumber(coupon.value)
  local discount = coupon.kind == 'percent' and percent_of(subtotal, value) or value
  if coupon.maximum_discount ~= '' then
    discount = math.min(discount, tonumber(coupon.maximum_discount))
  end
  discount = math.min(discount, discount_max, subtotal)
  if discount < discount_min then
    return nil, 'minimum_discount'
  end
  local rule = table.concat({
    coupon.campaign, coupon.number, coupon.kind, coupon.value, coupon.minimum_order, coupon.maximum_discount,
  }, ',')
  return discount, nil, coupon, rule
end
