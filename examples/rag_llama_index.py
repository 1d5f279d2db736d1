"""RAG with LlamaIndex: a node postprocessor in a query engine, cutting what its retriever finds.

OPENAI_API_KEY (and OPENAI_BASE_URL for another provider) say who answers, TRIMTAB_MODEL which model.
"""

import json
import os
from pathlib import Path

from llama_index.core import SummaryIndex
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.schema import TextNode
from openai import OpenAI

from trimtab.llama_index import TrimtabPostprocessor

payload = json.loads((Path(__file__).parent / "payload.json").read_text(encoding="utf-8"))
found = [TextNode(text=each["text"], metadata={"title": each["title"]}) for each in payload["trimtab"]["contexts"]]
client, model = OpenAI(), os.environ.get("TRIMTAB_MODEL", "gpt-5-mini")


class Model(CustomLLM):
    @property
    def metadata(self):
        return LLMMetadata(context_window=8192, num_output=40, model_name=model)

    def complete(self, prompt, formatted=False, **options):
        messages = [{"role": "user", "content": prompt}]
        answer = client.chat.completions.create(model=model, messages=messages, max_tokens=40, temperature=0)
        return CompletionResponse(text=answer.choices[0].message.content)

    def stream_complete(self, prompt, formatted=False, **options):
        yield self.complete(prompt)


engine = SummaryIndex(found).as_query_engine(llm=Model(), node_postprocessors=[TrimtabPostprocessor(ratio=0.15)])
answer = engine.query(payload["messages"][-1]["content"])
print(answer)
print(f"{len(found)} nodes -> {len(answer.source_nodes)}")
