"""RAG with LangChain: a ContextualCompressionRetriever over any retriever, cutting what it finds.

OPENAI_API_KEY (and OPENAI_BASE_URL for another provider) say who answers, TRIMTAB_MODEL which model.
"""

import json
import os
from pathlib import Path

from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.documents import Document
from langchain_core.messages import convert_to_openai_messages
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from openai import OpenAI

from trimtab.langchain import TrimtabCompressor

payload = json.loads((Path(__file__).parent / "payload.json").read_text(encoding="utf-8"))
found = [Document(each["text"], metadata={"title": each["title"]}) for each in payload["trimtab"]["contexts"]]
client, model = OpenAI(), os.environ.get("TRIMTAB_MODEL", "gpt-5-mini")


def ask(prompt):
    messages = convert_to_openai_messages(prompt.to_messages())
    answer = client.chat.completions.create(model=model, messages=messages, max_tokens=40, temperature=0)
    return answer.choices[0].message.content


retriever = ContextualCompressionRetriever(
    base_compressor=TrimtabCompressor(ratio=0.15), base_retriever=RunnableLambda(lambda question: found)
)
prompt = ChatPromptTemplate([("system", "Answer from the context."), ("user", "{context}\n\n{question}")])
question = payload["messages"][-1]["content"]
kept = retriever.invoke(question)
context = "\n\n".join(each.page_content for each in kept)
print((prompt | ask).invoke({"context": context, "question": question}))
print(f"{len(found)} documents -> {len(kept)}, {sum(len(each.page_content) for each in kept):,} characters")
