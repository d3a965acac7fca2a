"""Steps of training in the shape of GPT-2 124M, written once as plain functions over a library's own
operations: forward, backward, AdamW. And a LoRA step, in which only small matrices train."""

from ruler.case import Case, Kind

LAYERS, WIDTH, HEADS, VOCABULARY = 12, 768, 12, 50257
BATCH, LENGTH = 4, 256
RANK, LORA_SCALE = 8, 2.0
RATE, BETA1, BETA2, EPSILON, DECAY = 1e-4, 0.9, 0.999, 1e-8, 0.01

# Weights are (input, output); names are those of a layer.
LAYER = {"norm1": (WIDTH,), "shift1": (WIDTH,), "qkv": (WIDTH, 3 * WIDTH), "qkv_bias": (3 * WIDTH,),
         "out": (WIDTH, WIDTH), "out_bias": (WIDTH,), "norm2": (WIDTH,), "shift2": (WIDTH,),
         "up": (WIDTH, 4 * WIDTH), "up_bias": (4 * WIDTH,), "down": (4 * WIDTH, WIDTH), "down_bias": (WIDTH,)}
OUTER = {"tokens": (VOCABULARY, WIDTH), "positions": (LENGTH, WIDTH), "norm": (WIDTH,), "shift": (WIDTH,)}
LORA = {"qkv_a": (WIDTH, RANK), "qkv_b": (RANK, 3 * WIDTH), "out_a": (WIDTH, RANK), "out_b": (RANK, WIDTH)}


def names(lora=False):
    """[(name, shape)] of all parameters, or of the small ones alone."""
    layer = LORA if lora else LAYER
    inner = [(f"{i}.{name}", shape) for i in range(LAYERS) for name, shape in layer.items()]
    return inner if lora else [*OUTER.items(), *inner]


def layer_of(parameters, i):
    prefix = f"{i}."
    return {name[len(prefix):]: value for name, value in parameters.items() if name.startswith(prefix)}


def flops(lora):
    """Of one step: products only, backward twice the forward; frozen weights need no gradient of theirs."""
    per_token = sum(shape[0] * shape[1] for _, shape in names() if len(shape) == 2) - LENGTH * WIDTH
    attention = LAYERS * HEADS * 2 * 2 * LENGTH * LENGTH * (WIDTH // HEADS) / 2 * BATCH
    return 2.0 * per_token * BATCH * LENGTH * (2 if lora else 3) + 3 * attention


class Mx:
    """Operations of MLX's API."""

    def __init__(self, mx):
        self.mx = mx
        self.checkpoint = mx.checkpoint

    def norm(self, x, weight, bias):
        return self.mx.fast.layer_norm(x, weight, bias, 1e-5)

    def gelu(self, x):
        return 0.5 * x * (1 + self.mx.tanh(0.7978845608 * (x + 0.044715 * x * x * x)))

    def rows(self, table, ids):
        return table[ids]

    def heads(self, x):
        return self.mx.transpose(x.reshape(BATCH, LENGTH, HEADS, WIDTH // HEADS), (0, 2, 1, 3))

    def attend(self, qkv):
        q, k, v = (self.heads(x) for x in self.mx.split(qkv, 3, axis=-1))
        y = self.mx.fast.scaled_dot_product_attention(q, k, v, scale=(WIDTH // HEADS) ** -0.5, mask="causal")
        return self.mx.transpose(y, (0, 2, 1, 3)).reshape(BATCH, LENGTH, WIDTH)

    def cross_entropy(self, logits, targets):
        mx = self.mx
        logits = logits.astype(mx.float32)
        chosen = mx.take_along_axis(logits, mx.expand_dims(targets, -1), axis=-1)
        return mx.mean(mx.logsumexp(logits, axis=-1) - mx.squeeze(chosen, -1))


class Torch:
    def __init__(self, torch):
        self.torch, self.f = torch, torch.nn.functional

    def checkpoint(self, layer):
        from torch.utils.checkpoint import checkpoint
        return lambda *arguments: checkpoint(layer, *arguments, use_reentrant=False)

    def norm(self, x, weight, bias):
        return self.f.layer_norm(x, (WIDTH,), weight, bias, 1e-5)

    def gelu(self, x):
        return self.f.gelu(x, approximate="tanh")

    def rows(self, table, ids):
        return self.f.embedding(ids, table)

    def attend(self, qkv):
        q, k, v = (x.reshape(BATCH, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2) for x in qkv.chunk(3, dim=-1))
        y = self.f.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y.transpose(1, 2).reshape(BATCH, LENGTH, WIDTH)

    def cross_entropy(self, logits, targets):
        return self.f.cross_entropy(logits.float().flatten(0, 1), targets.flatten().long())


def product(x, w, name):
    """x @ weight + bias, and what LoRA adds where there is any."""
    y = x @ w[name] + w[f"{name}_bias"]
    return y + ((x @ w[f"{name}_a"]) @ w[f"{name}_b"]) * LORA_SCALE if f"{name}_a" in w else y


def loss_of(ops, checkpoint):
    def block(x, w):
        x = x + product(ops.attend(product(ops.norm(x, w["norm1"], w["shift1"]), w, "qkv")), w, "out")
        return x + product(ops.gelu(product(ops.norm(x, w["norm2"], w["shift2"]), w, "up")), w, "down")

    block = ops.checkpoint(block) if checkpoint else block

    def loss(parameters, tokens, targets):
        x = ops.rows(parameters["tokens"], tokens) + parameters["positions"]
        for i in range(LAYERS):
            x = block(x, layer_of(parameters, i))
        x = ops.norm(x, parameters["norm"], parameters["shift"])
        return ops.cross_entropy(x @ parameters["tokens"].T, targets)

    return loss


def adamw(lib, p, g, m, v, t):
    """New (p, m, v); `t` counts steps from 1."""
    m = BETA1 * m + (1 - BETA1) * g
    v = BETA2 * v + (1 - BETA2) * g * g
    step = RATE * (m / (1 - BETA1 ** t)) / (lib.sqrt(v / (1 - BETA2 ** t)) + EPSILON)
    return p * (1 - RATE * DECAY) - step, m, v


class Step(Kind):
    def inputs(self, rng, lora, **_):
        def values(shape, name):
            if len(shape) == 1:
                return rng.standard_normal(shape, dtype="float32") * 0.1 + (1.0 if "norm" in name else 0.0)
            return rng.standard_normal(shape, dtype="float32") * 0.02

        ids = rng.integers(0, VOCABULARY, (2, BATCH, LENGTH)).astype("int32")
        small = names(lora=True) if lora else []
        return [ids[0], ids[1], *(values(shape, name) for name, shape in (*names(), *small))]

    def split(self, weights, lora):
        """(those that train, those that do not), by name."""
        outer = dict(zip((name for name, _ in names()), weights))
        if not lora:
            return outer, {}
        return dict(zip((name for name, _ in names(lora=True)), weights[len(outer):])), outer

    def mx(self, mx, lora, checkpoint, **_):
        loss = loss_of(Mx(mx), checkpoint)
        value_and_grad = mx.value_and_grad(
            lambda train, fixed, tokens, targets: loss({**fixed, **train}, tokens, targets))
        state = {}

        def step(tokens, targets, *weights):
            if not state:
                train, fixed = self.split(weights, lora)
                zeros = {name: (mx.zeros_like(p), mx.zeros_like(p)) for name, p in train.items()}
                state.update(train=train, fixed=fixed, moments=zeros, t=0)
            state["t"] += 1
            value, grads = value_and_grad(state["train"], state["fixed"], tokens, targets)
            new = {name: adamw(mx, p, grads[name], *state["moments"][name], state["t"])
                   for name, p in state["train"].items()}
            state["train"] = {name: p for name, (p, _, _) in new.items()}
            state["moments"] = {name: (m, v) for name, (_, m, v) in new.items()}
            del grads, new
            mx.eval(value, state["train"], state["moments"])
            return value

        return step

    def torch(self, torch, lora, checkpoint, **_):
        loss = loss_of(Torch(torch), checkpoint)
        state = {}

        def step(tokens, targets, *weights):
            if not state:
                train, fixed = self.split(weights, lora)
                train = {name: p.clone().requires_grad_() for name, p in train.items()}
                optimizer = torch.optim.AdamW(train.values(), lr=RATE, betas=(BETA1, BETA2), eps=EPSILON,
                                              weight_decay=DECAY, fused=True)
                state.update(all={**fixed, **train}, optimizer=optimizer)
            value = loss(state["all"], tokens, targets)
            state["optimizer"].zero_grad(set_to_none=True)
            value.backward()
            state["optimizer"].step()
            return value.detach()

        return step


def case(name, lora=False, checkpoint=False, dtype="float32"):
    return Case(f"training/{name}", Step, dict(lora=lora, checkpoint=checkpoint, dtype=dtype), peers=("torch",),
                work=flops(lora), ceiling="f32", goals={"torch": 1.3}, tolerance=1e-3 if dtype == "float32" else 3e-2,
                seconds=1e-9, note="a call is a step of 4 x 256 tokens; the second loss is compared")


CASES = [
    case("gpt2-124m/float32"),
    case("gpt2-124m/float32-checkpoint", checkpoint=True),
    case("gpt2-124m/bfloat16", dtype="bfloat16"),
    case("gpt2-124m/bfloat16-checkpoint", checkpoint=True, dtype="bfloat16"),
    case("lora/float32", lora=True),
    case("lora/bfloat16", lora=True, dtype="bfloat16"),
]
