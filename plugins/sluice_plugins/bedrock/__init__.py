"""The backends for Amazon Bedrock: Converse, and Claude by InvokeModel."""
