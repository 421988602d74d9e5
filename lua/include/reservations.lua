-- Reservation lines are packed as `product:stock:quantity`, joined by commas; no id contains either sign.
local function unpack_lines(packed)
  local lines = {}
  for product, stock, quantity in string.gmatch(packed, '([^:,]+):([^:,]+):([^:,]+)') do
    lines[#lines + 1] = {product = product, stock = stock, quantity = tonumber(quantity)}
  end
  return lines
end

-- The key of each product id, in the order given.
local function keys_by_id(product_keys, product_ids)
  local key_of = {}
  for index, id in ipairs(product_ids) do
    key_of[id] = product_keys[index]
  end
  return key_of
end

-- Give each line the key of its product. False when the caller declared other products than the reservation has.
local function key_lines(lines, key_of)
  for _, line in ipairs(lines) do
    line.key = key_of[line.product]
    if not line.key then
      return false
    end
  end
  return true
end
