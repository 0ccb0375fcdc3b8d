-- Copyright (c) 2026, the erni_ki.inference team
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- Who may ask, and how often. Keys are long and random, so a plain SHA-256 keeps them: there is no dictionary to try.
local ffi = require("ffi")
local config = require("erni_gateway.config")

ffi.cdef("unsigned char *SHA256(const unsigned char *d, size_t n, unsigned char *md);")

local M = {}
local digest = ffi.new("unsigned char[32]")

local function sha256(text)
    ffi.C.SHA256(text, #text, digest)
    return (string.gsub(ffi.string(digest, 32), ".", function(character)
        return string.format("%02x", string.byte(character))
    end))
end

-- Return the key's {name, requests_per_minute, burst}; nil where the request has none that is known.
function M.of_request()
    local header = ngx.var.http_authorization
    local key = header and string.match(header, "^[Bb]earer +(%S+)$")
    return key and config.keys[sha256(key)]
end

-- Return the seconds after which the next request is allowed; nil when this one is. A bucket that leaks at the key's rate.
function M.wait(key)
    local rate = key.requests_per_minute
    if rate == 0 then
        return nil
    end
    local shared, now, step = ngx.shared.gateway, ngx.now(), 60 / rate
    local name = "rate:" .. key.name
    local due = math.max(shared:get(name) or 0, now)
    local ahead = due - now
    if ahead > step * (key.burst - 1) + 0.001 then
        return ahead - step * (key.burst - 1)
    end
    shared:set(name, due + step, 3600)
    return nil
end

return M
