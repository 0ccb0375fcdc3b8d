-- Copyright (c) 2026, the erni_ki.inference team
-- GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
-- SPDX-License-Identifier: GPL-3.0-or-later
-- Looks at each engine again and again, and lets an idle one generate a token now and then: before clients find out that it cannot.
local cjson = require("cjson.safe")
local config = require("erni_gateway.config")
local engines = require("erni_gateway.engines")

local M = {}

-- Ask an engine; return its status and body, or nil and what was wrong, and whether that leaves no doubt.
local function ask(engine, method, path, value, timeout)
    local socket = ngx.socket.tcp()
    socket:settimeouts(math.min(timeout, config.limits.connect_timeout) * 1000, timeout * 1000, timeout * 1000)
    local ok, problem = socket:connect(engine.address, engine.port)
    if not ok then
        return nil, "accepts no connection: " .. problem, problem == "connection refused"
    end
    local text = value and cjson.encode(value) or ""
    -- HTTP/1.0: the answer ends with the connection, and has no chunks.
    local lines = {method .. " " .. path .. " HTTP/1.0", "Host: localhost", "Content-Type: application/json", "Content-Length: " .. #text}
    if engine.authorization ~= "" then
        table.insert(lines, "Authorization: " .. engine.authorization)
    end
    socket:send(table.concat(lines, "\r\n") .. "\r\n\r\n" .. text)
    local line, wrong = socket:receive("*l")
    local status = line and tonumber(string.match(line, "^HTTP/%d%.%d (%d%d%d)"))
    if not status then
        socket:close()
        return nil, path .. ": " .. (wrong or "no HTTP")
    end
    local answer = socket:receive("*a")
    socket:close()
    if not answer then
        return nil, path .. ": broke off"
    end
    return status, string.match(answer, "\r\n\r\n(.*)") or ""
end

-- Return whether the models in memory are where the plan has them; an engine without any proves nothing.
local function on_device(engine)
    local status, answer, certain = ask(engine, "GET", "/api/ps", nil, config.limits.probe_timeout)
    if status ~= 200 then
        return nil, status and "/api/ps answers " .. status or answer, certain
    end
    local value = cjson.decode(answer)
    local models = type(value) == "table" and type(value.models) == "table" and value.models or {}
    for _, model in ipairs(models) do
        local size, vram = tonumber(model.size) or 0, tonumber(model.size_vram) or 0
        if engine.device == "gpu" and vram < size or engine.device == "gpu_in_part" and vram == 0 and size > 0 then
            return nil, "wrong device: of " .. tostring(model.name) .. " " .. vram .. " of " .. size .. " bytes are on the GPU", true
        end
    end
    return models
end

-- A quick look. Return whether it is well, else what is wrong; for Ollama also the name of a model in memory.
local function probe(engine)
    if engine.service == "ollama" then
        local models, wrong, certain = on_device(engine)
        return models ~= nil, wrong, certain, models and models[1] and models[1].name
    end
    local status, answer, certain = ask(engine, "GET", "/health", nil, config.limits.probe_timeout)
    if status ~= 200 then
        return false, status and "/health answers " .. status or answer, certain
    end
    return true
end

local function one_token(engine, loaded)
    local path, value
    if engine.service == "ollama" then
        -- The model that is there: to load another one might put out that of a client.
        path, value = "/api/generate", {model = loaded or engine.models[1], prompt = "1", stream = false, options = {num_predict = 1}}
    else
        path, value = "/v1/completions", {model = engine.models[1], prompt = "1", max_tokens = 1}
    end
    local status, answer = ask(engine, "POST", path, value, config.limits.check_timeout)
    if status ~= 200 then
        local text = status and cjson.decode(answer)
        local said = type(text) == "table" and text.error
        said = type(said) == "table" and said.message or said
        return false, "generates no token: " .. (status and path .. " answers " .. status or answer) .. (said and ": " .. string.sub(tostring(said), 1, 200) or "")
    end
    if engine.service == "ollama" then
        local models, wrong = on_device(engine)
        return models ~= nil, wrong
    end
    return true
end

local function check(engine, last_token)
    local limits = config.limits
    local well, wrong, certain, loaded = probe(engine)
    if not well then
        engines.failed(engine, "probe", wrong, certain)
        return last_token
    end
    engines.probed(engine)
    if limits.check_interval == 0 or #engine.models == 0 then
        engines.put_back(engine)
        return last_token
    end
    -- A busy engine would only answer when it is done; what becomes of its requests says enough.
    local silent = ngx.now() - math.max(last_token, engines.last_heard(engine))
    if ngx.shared.gateway:get("up:" .. engine.name) == true and (engines.in_flight(engine) > 0 or silent < limits.check_interval) then
        return last_token
    end
    well, wrong = one_token(engine, loaded)
    ngx.update_time()
    if well then
        engines.put_back(engine)
    else
        engines.failed(engine, "answer", wrong)
    end
    return ngx.now()
end

local function watch(premature, engine, last_token)
    if premature then
        return
    end
    local ok, result = pcall(check, engine, last_token)
    if not ok then
        ngx.log(ngx.ERR, "the check of ", engine.name, " failed: ", result)
    end
    ngx.timer.at(config.limits.probe_interval, watch, engine, ok and result or last_token)
end

-- In one worker only: two would ask twice.
function M.start()
    engines.start()
    if ngx.worker.id() ~= 0 then
        return
    end
    ngx.timer.every(10, engines.bury)
    -- The workers of before the reload still know those that are gone now.
    ngx.timer.at(3, engines.forget_drained)
    for _, engine in ipairs(config.engines) do
        ngx.timer.at(0, watch, engine, 0)
    end
end

return M
