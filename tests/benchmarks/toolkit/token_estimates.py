"""How far a quarter of the bytes, or of the characters, is from a real tokenizer's count, by kind of text."""

import base64
import inspect
import json
import os
from pathlib import Path
from random import Random

import litellm

from course.benchmarks import Row
from llm_patterns import errors
from llm_patterns.toolkit import estimated_tokens

# tiktoken would fetch its vocabulary; litellm's wheel brings it.
os.environ["TIKTOKEN_CACHE_DIR"] = str(
    Path(str(litellm.__file__)).parent / "litellm_core_utils" / "tokenizers"
)

PEERS = ("tiktoken",)
ROUNDS = 1
RNG = Random(0)
TEXTS = {
    "English": "On Monday morning we noticed that the service had become slow, and looked at the logs. The provider's "
    "interface returned many errors, the clients tried again and again, and the traffic tripled.",
    "German": "Am Montagmorgen bemerkten wir, dass der Dienst langsamer geworden war, und prüften die Protokolle. Die "
    "Schnittstelle des Anbieters gab viele Fehler zurück, und die Clients versuchten es immer wieder.",
    "Russian": "В понедельник утром мы заметили, что сервис стал медленнее, и проверили журналы. Интерфейс поставщика "  # noqa: RUF001
    "возвращал много ошибок, клиенты повторяли запросы снова и снова, и трафик вырос втрое.",
    "Chinese": "我们在周一早上发现服务变慢了，于是检查了日志和监控数据。供应商的接口返回了很多错误，"  # noqa: RUF001
    "客户端不断重试，结果流量翻了三倍。",  # noqa: RUF001
    "Japanese": "月曜日の朝、サービスが遅くなっていることに気づき、ログと監視データを確認しました。"
    "提供元が多くのエラーを返していました。",
    "Python": inspect.getsource(errors)[:6_000],
    "JSON": json.dumps(
        [{"id": each, "ok": each % 2 == 0, "score": RNG.random()} for each in range(60)],
        separators=(",", ":"),
    ),
    "Base64": base64.b64encode(RNG.randbytes(3_000)).decode(),
}


def measure() -> list[Row]:
    """Return each rule's count over the tokenizer's."""
    import tiktoken  # noqa: PLC0415 - it reads the variable above

    encoding = tiktoken.get_encoding("o200k_base")
    rows: list[Row] = []
    for kind, text in TEXTS.items():
        tokens = len(encoding.encode(text))
        rows.append(
            {
                "Text": kind,
                "Tokens": tokens,
                "A quarter of the bytes": round(estimated_tokens(text) / tokens, 3),
                "A quarter of the characters": round(len(text) / 4 / tokens, 3),
            }
        )
    return rows
