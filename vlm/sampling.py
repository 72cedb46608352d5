"""How the tokens of an answer are chosen: the settings, their ranges, and what an unset one takes.

Standard library only, like ``vlm.types``, where the rest of a request is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vlm.errors import InvalidRequest

MAX_TOP_LOGPROBS = 20
"""Maximum number of likeliest tokens that are reported of each step: OpenAI's limit, which bounds an answer's size."""

MAX_BIASES = 300
"""Maximum number of entries of a ``logit_bias``, which each step sends to the device; vLLM's and OpenAI's limit."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. None takes the default of the checkpoint's generation config.

    Attributes:
        max_tokens: Maximum number of tokens to generate (at least 1); also bounded by the model's context.
        temperature: From 0, which is greedy, to 2.
        top_p: Probability of the nucleus, the smallest set of most likely tokens to sample from (0 to 1; 0 is the most
            likely token alone).
        seed: The same seed gives the same answer, whatever else is in the batch.
        stop: The answer ends before the first of these strings (at most 4).
        repetition_penalty: Divides the positive logits of tokens that have occurred, and multiplies the negative ones
            (0 < repetition_penalty <= 10; 1 is off).
        no_repeat_ngram_size: No n-gram of this size occurs twice (0 to 64; 0 is off).
        forced_tokens: Token ids with which the answer starts.
        forced_last_token: Token id that is forced where ``max_tokens`` is reached.
        num_beams: Number of beams (1 to 8); 1 is no beam search.
        length_penalty: An answer of n tokens is ranked by its log-probability divided by n to this power (-8 to 8).
        early_stopping: Beam search ends once ``num_beams`` answers are complete, even if a better one may follow.
        logprobs: Report the log-probability of each chosen token, before any penalty or temperature, and its bytes.
        top_logprobs: Number of likeliest tokens of each step to report as well (0 to 20); needs ``logprobs``.
        frequency_penalty: Subtracted from a token's logit for each time that it is in the answer so far; the prompt
            does not count (-2 to 2; 0 is off; OpenAI's definition).
        presence_penalty: Subtracted once if it is in the answer so far at all (-2 to 2; 0 is off; OpenAI's).
        logit_bias: Pairs of a token id and what is added to its logit (-100, in effect a ban, to 100, in effect the
            only choice; each id once, at most 300 pairs; OpenAI's).
        top_k: Number of most likely tokens to sample from; 0 and -1 are all of them (Fan et al. 2018,
            arXiv:1805.04833).
        min_p: Tokens are left out whose probability is below this share of the most likely one's (0 to 1; 0 is off;
            Nguyen et al. 2024, arXiv:2407.01082).

    ``top_p``, ``top_k`` and ``min_p`` matter only where tokens are sampled. Penalties and biases act on tokens that the
    model chooses: not on forced tokens, nor on coordinates that it computes in place of a token. In a beam search they
    change the log-probabilities by which beams are ranked, as transformers' processors do.

    Raises:
        InvalidRequest: A value is out of range; ``param`` is the field's name.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    forced_tokens: tuple[int, ...] | None = None
    forced_last_token: int | None = None
    num_beams: int | None = None
    length_penalty: float | None = None
    early_stopping: bool | None = None
    logprobs: bool = False
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    top_k: int = 0
    min_p: float = 0.0
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        check(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", "must be at least 1")
        check(self.temperature is None or 0 <= self.temperature <= 2, "temperature", "must be from 0 to 2")
        check(self.top_p is None or 0 <= self.top_p <= 1, "top_p", "must be from 0 to 1")
        check(
            self.repetition_penalty is None or 0 < self.repetition_penalty <= 10,
            "repetition_penalty",
            "must be above 0 and at most 10",
        )
        check(
            self.no_repeat_ngram_size is None or 0 <= self.no_repeat_ngram_size <= 64,
            "no_repeat_ngram_size",
            "must be from 0 to 64",
        )
        check(self.num_beams is None or 1 <= self.num_beams <= 8, "num_beams", "must be from 1 to 8")
        check(self.length_penalty is None or -8 <= self.length_penalty <= 8, "length_penalty", "must be from -8 to 8")
        check(len(self.stop) <= 4 and all(self.stop), "stop", "takes at most 4 strings, none of them empty")
        check(
            not (self.temperature and (self.num_beams or 1) > 1),
            "num_beams",
            "above 1 needs temperature 0, because beam search cannot be combined with sampling; "
            "set temperature to 0 or num_beams to 1",
        )
        check(-2 <= self.frequency_penalty <= 2, "frequency_penalty", "must be from -2 to 2")
        check(-2 <= self.presence_penalty <= 2, "presence_penalty", "must be from -2 to 2")
        check(self.top_k >= -1, "top_k", "must be at least 1, or 0 or -1 for no limit")
        check(0 <= self.min_p <= 1, "min_p", "must be from 0 to 1")
        check(0 <= self.top_logprobs <= MAX_TOP_LOGPROBS, "top_logprobs", f"must be from 0 to {MAX_TOP_LOGPROBS}")
        check(self.logprobs or not self.top_logprobs, "top_logprobs", "needs logprobs to be true")
        self._check_biases()

    def _check_biases(self) -> None:
        ids = [token for token, _ in self.logit_bias]
        check(len(ids) <= MAX_BIASES, "logit_bias", f"takes at most {MAX_BIASES} tokens")
        check(len(set(ids)) == len(ids), "logit_bias", "takes each token id once")
        check(all(-100 <= bias <= 100 for _, bias in self.logit_bias), "logit_bias", "takes values from -100 to 100")

    def unused(self, resolved: Sampling, *, chooses_tokens: bool = True) -> tuple[str, ...]:
        """Names of the settings here that make no difference to an answer that is generated as ``resolved``.

        Those that ask for nothing (``top_p`` 1) are not among them.

        Args:
            resolved: These settings with all defaults.
            chooses_tokens: Whether the model chooses tokens, and not only coordinates.
        """
        searches = (resolved.num_beams or 1) > 1
        samples = bool(resolved.temperature) and not searches
        of_sampling = {"top_p": self.top_p not in {None, 1.0}, "top_k": self.top_k > 0, "min_p": self.min_p > 0}
        of_search = {"length_penalty": self.length_penalty not in {None, 1.0}, "early_stopping": self.early_stopping}
        of_choosing = {
            "temperature": self.temperature,
            "repetition_penalty": self.repetition_penalty not in {None, 1.0},
            "no_repeat_ngram_size": self.no_repeat_ngram_size,
            "frequency_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "logit_bias": self.logit_bias,
        }
        given = {
            **({} if chooses_tokens else of_choosing),
            **({} if samples and chooses_tokens else of_sampling),
            **({} if searches else of_search),
        }
        return tuple(name for name, is_given in given.items() if is_given)

    def over(self, defaults: Sampling) -> Sampling:
        """These settings, with every None taken from ``defaults``.

        Beam search cannot be combined with sampling: if a request asks for one of them, defaults for the other do not
        apply.
        """
        unset = {
            name: getattr(defaults, name)
            for name in ("max_tokens", "temperature", "top_p", "repetition_penalty", "no_repeat_ngram_size",
                         "forced_tokens", "forced_last_token", "num_beams", "length_penalty", "early_stopping")
            if getattr(self, name) is None
        }  # fmt: skip
        if self.temperature and unset.get("num_beams"):
            unset["num_beams"] = 1
        if self.num_beams not in {None, 1} and unset.get("temperature"):
            unset["temperature"] = 0.0
        return replace(self, **unset)


def check(holds: bool, name: str, rule: str) -> None:
    """Raise InvalidRequest with the name of a field unless what its rule says ``holds``."""
    if not holds:
        raise InvalidRequest(f"{name} {rule}.", param=name, code="invalid_value")
