-- Copyright (c) 2026, the erni_ki.inference team
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- The model's name in a request's body: found, and replaced where it stands, so that everything else stays byte for byte as the client wrote it.
local cjson = require("cjson.safe")

local M = {}

local find, sub, byte, lower = string.find, string.sub, string.byte, string.lower

-- The place behind the string that begins at this quote.
local function behind_string(text, at)
    local place = at + 1
    while true do
        place = find(text, '["\\]', place)
        if byte(text, place) == 34 then
            return place + 1
        end
        place = place + 2
    end
end

-- Where the value of the outermost object's key "model" begins and ends. The text is known to be JSON. Engines differ in which of two
-- such keys they take, and one of them does not look at the case, so that a second one is refused.
local function model_span(text)
    local depth, place, first, last = 0, 1, nil, nil
    while true do
        local at = find(text, '["{}%[%]]', place)
        if not at then
            return first, last
        end
        local character = byte(text, at)
        if character == 34 then
            place = behind_string(text, at)
            local _, colon = find(text, "^%s*:%s*", place)
            if depth == 1 and colon then
                local key = cjson.decode("[" .. sub(text, at, place - 1) .. "]")[1]
                if lower(key) == "model" then
                    if first or key ~= "model" then
                        return nil, nil, "twice"
                    end
                    if byte(text, colon + 1) == 34 then
                        first, last = colon + 1, behind_string(text, colon + 1) - 1
                        place = last + 1
                    end
                end
            end
        else
            depth = depth + ((character == 123 or character == 91) and 1 or -1)
            place = at + 1
        end
    end
end

-- Return {text, model, stream, first, last}, or nil and what is wrong with the body.
function M.parse(text)
    local value, wrong = cjson.decode(text)
    if type(value) ~= "table" or not find(text, "^%s*{") then
        return nil, "The body is not a JSON object" .. (wrong and ": " .. wrong or "") .. "."
    end
    local first, last, twice = model_span(text)
    if twice then
        return nil, 'The body has more than one key "model".'
    end
    if type(value.model) ~= "string" or value.model == "" or not first then
        return nil, 'The body has no "model", the name of an alias or a model: GET /v1/models lists them.'
    end
    return {text = text, model = value.model, stream = value.stream, first = first, last = last}
end

function M.with_model(parsed, model)
    if model == parsed.model then
        return parsed.text
    end
    return sub(parsed.text, 1, parsed.first - 1) .. cjson.encode(model) .. sub(parsed.text, parsed.last + 1)
end

return M
